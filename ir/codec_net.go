package ir

func (w *wire) net(n *Net) {
	m := w.fields("net")
	optUnsigned(m, 1, &n.Destinations)
	optList(m, 2, &n.Rules, (*wire).netRule)
	optList(m, 3, &n.Hosts, (*wire).netHost)
	m.optBoolean(4, &n.Private)
	m.optBoolean(5, &n.Resolver)
	optList(m, 6, &n.DenyBind, (*wire).netPort)
	optUnsigned(m, 7, &n.Unix)
	optList(m, 8, &n.UnixPaths, (*wire).unixPath)
	m.optBoolean(9, &n.PortRemap)
	optUnsigned(m, 10, &n.Origin)
	optUnsigned(m, 11, &n.DenyBindOrigin)
	optUnsigned(m, 12, &n.UnixOrigin)
	optUnsigned(m, 13, &n.RemapOrigin)
	optList(m, 14, &n.Intercepted, unsigned[uint16])
	optList(m, 15, &n.Named, (*wire).netName)
	m.end()
}

func (w *wire) netRule(r *NetRule) {
	w.tuple(6)
	unsigned(w, &r.Protocols)
	unsigned(w, &r.Kind)
	w.text(&r.Target)
	list(w, &r.Ports, (*wire).netPort)
	w.boolean(&r.Derived)
	unsigned(w, &r.Origin)
}

func (w *wire) netPort(p *NetPort) {
	w.tuple(3)
	unsigned(w, &p.Lo)
	unsigned(w, &p.Hi)
	w.text(&p.Param)
}

func (w *wire) netHost(h *NetHost) {
	w.tuple(3)
	w.text(&h.Name)
	list(w, &h.Addresses, (*wire).text)
	unsigned(w, &h.Origin)
}

func (w *wire) netName(n *NetName) {
	w.tuple(2)
	w.text(&n.Name)
	unsigned(w, &n.Origin)
}

func (w *wire) unixPath(u *UnixPath) {
	w.tuple(2)
	w.text(&u.Path)
	unsigned(w, &u.Origin)
}
