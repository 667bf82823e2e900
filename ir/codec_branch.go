package ir

func (w *wire) branch(b *Branch) {
	m := w.fields("branch")
	m.optText(1, &b.Workdir)
	optUnsigned(m, 2, &b.Kind)
	m.optText(3, &b.Storage)
	optUnsigned(m, 4, &b.OnExit)
	optUnsigned(m, 5, &b.OnError)
	optUnsigned(m, 6, &b.Disk)
	optUnsigned(m, 7, &b.Origin)
	optUnsigned(m, 8, &b.DiskOrigin)
	m.end()
}
