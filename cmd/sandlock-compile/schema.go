package main

import "github.com/sandlock-go/sandlock/schema/gendoc"

type schemaCmd struct {
	Format string `default:"md" enum:"cue,json,md" help:"cue, json (JSON Schema) or md (Markdown)."`
}

// formats are the forms of the language. JSON Schema cannot say all of it; the CUE form is what policies must meet.
var formats = map[string]func() ([]byte, error){
	"cue":  gendoc.CUE,
	"json": gendoc.JSONSchema,
	"md":   gendoc.Markdown,
}

func (c *schemaCmd) Run(s *streams) error {
	b, err := formats[c.Format]()
	if err != nil {
		return err
	}
	_, err = s.out.Write(b)
	return err
}
