package ir

func (w *wire) dynamicRule(r *DynamicRule) {
	m := w.fields("rule")
	unsigned(m.must(1), &r.On)
	m.optText(2, &r.Argv)
	m.optText(3, &r.Exe)
	m.optText(4, &r.Path)
	m.optBoolean(5, &r.AfterExec)
	optUnsigned(m, 6, &r.Count)
	m.must(7).outcome(&r.Then)
	optList(m, 8, &r.Do, (*wire).change)
	unsigned(m.must(9), &r.Scope)
	m.optText(10, &r.Reason)
	optUnsigned(m, 11, &r.Origin)
	m.optText(12, &r.Host)
	optUnsigned(m, 13, &r.Port)
	optUnsigned(m, 14, &r.Protocol)
	m.end()
}

func (w *wire) outcome(o *Outcome) {
	w.tuple(2)
	unsigned(w, &o.Kind)
	unsigned(w, &o.Errno)
}

func (w *wire) change(c *Change) {
	w.tuple(4)
	unsigned(w, &c.Kind)
	unsigned(w, &c.Value)
	w.text(&c.Path)
	list(w, &c.Net, (*wire).netRule)
}
