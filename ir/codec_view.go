package ir

func (w *wire) view(v *View) {
	m := w.fields("view")
	m.optBoolean(1, &v.MapIDs)
	optUnsigned(m, 2, &v.UID)
	optUnsigned(m, 3, &v.GID)
	m.optBoolean(4, &v.Mount)
	m.optBoolean(5, &v.PID)
	m.optBoolean(6, &v.Net)
	m.optText(7, &v.Root)
	optUnsigned(m, 8, &v.Proc)
	m.optBoolean(9, &v.Tmp)
	m.optBoolean(10, &v.Dev)
	m.optBoolean(11, &v.Sys)
	optList(m, 12, &v.Mounts, (*wire).viewMount)
	optList(m, 13, &v.Deny, (*wire).viewPath)
	optList(m, 14, &v.Protect, (*wire).viewPath)
	optList(m, 15, &v.Masks, (*wire).text)
	optList(m, 16, &v.ReadOnly, (*wire).text)
	optUnsigned(m, 17, &v.RootOrigin)
	optUnsigned(m, 18, &v.TmpOrigin)
	optUnsigned(m, 19, &v.ProcOrigin)
	optUnsigned(m, 20, &v.MapOrigin)
	m.optBoolean(21, &v.Optional)
	m.end()
}

func (w *wire) viewMount(v *ViewMount) {
	w.tuple(4)
	w.text(&v.Target)
	w.text(&v.Source)
	w.boolean(&v.ReadOnly)
	unsigned(w, &v.Origin)
}

func (w *wire) viewPath(v *ViewPath) {
	w.tuple(2)
	w.text(&v.Path)
	unsigned(w, &v.Origin)
}
