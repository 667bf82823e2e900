package lower

import (
	"strings"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

var paramsFields = []string{"params"}

var paramTypes = map[string]ir.ParamType{
	"dir": ir.ParamDir, "file": ir.ParamFile, "path": ir.ParamPath, "port": ir.ParamPort, "string": ir.ParamString,
	"int": ir.ParamInt,
}

// Params lowers the parameters, which come sorted by name.
func Params(u *Unit) {
	for _, it := range u.Policy.Params.Items {
		p := Param(it.V)
		p.Origin = u.ref(it.Origin)
		u.Program.Params = append(u.Program.Params, p)
	}
}

// Param lowers one declaration, without its place.
func Param(p policy.Param) ir.Param {
	return ir.Param{
		Name:        p.Name,
		Type:        paramTypes[p.Type.V],
		HasDefault:  p.Default.Set,
		Default:     p.Default.V,
		Pattern:     p.Pattern.V,
		Under:       p.Under.Values(),
		Description: strings.TrimSpace(p.Description.V),
	}
}
