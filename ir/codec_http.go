package ir

func (w *wire) http(h *HTTP) {
	m := w.fields("http")
	optList(m, 1, &h.Allow, (*wire).httpRule)
	optList(m, 2, &h.Deny, (*wire).httpRule)
	optUnsigned(m, 3, &h.Authority)
	m.optText(4, &h.CA)
	m.optText(5, &h.Key)
	optList(m, 6, &h.InjectCA, (*wire).httpFile)
	m.optText(7, &h.CAOut)
	m.optText(8, &h.UpstreamCA)
	optList(m, 9, &h.Credentials, (*wire).credential)
	optList(m, 10, &h.Auth, (*wire).httpAuth)
	m.must(11).httpLimits(&h.Limits)
	m.optBoolean(12, &h.RedactQuery)
	optUnsigned(m, 13, &h.Origin)
	optUnsigned(m, 14, &h.CAOrigin)
	optUnsigned(m, 15, &h.OutOrigin)
	m.end()
}

func (w *wire) httpRule(r *HTTPRule) {
	w.tuple(7)
	w.text(&r.Method)
	w.text(&r.Host)
	w.text(&r.Path)
	w.boolean(&r.Prefix)
	w.boolean(&r.Opaque)
	w.text(&r.Reason)
	unsigned(w, &r.Origin)
}

func (w *wire) httpFile(f *HTTPFile) {
	w.tuple(2)
	w.text(&f.Path)
	unsigned(w, &f.Origin)
}

func (w *wire) credential(c *Credential) {
	w.tuple(4)
	w.text(&c.Name)
	unsigned(w, &c.Kind)
	w.text(&c.Source)
	unsigned(w, &c.Origin)
}

func (w *wire) httpAuth(a *HTTPAuth) {
	w.tuple(7)
	w.httpRule(&a.Rule)
	w.text(&a.Credential)
	unsigned(w, &a.Scheme)
	w.text(&a.Name)
	w.boolean(&a.AddOnly)
	w.boolean(&a.Plain)
	unsigned(w, &a.Origin)
}

func (w *wire) httpLimits(l *HTTPLimits) {
	m := w.fields("limits")
	optUnsigned(m, 1, &l.HeaderBytes)
	optUnsigned(m, 2, &l.BodyBytes)
	optUnsigned(m, 3, &l.Connections)
	optUnsigned(m, 4, &l.HeaderMS)
	optUnsigned(m, 5, &l.IdleMS)
	m.end()
}
