package main

import (
	"bytes"
	"fmt"
	"io/fs"

	"github.com/sandlock-go/sandlock/schema"
)

type schemaCmd struct {
	Format string `default:"md" enum:"cue,json,md" help:"cue, json (JSON Schema) or md (Markdown)."`
}

func (c *schemaCmd) Run(s *streams) error {
	b, err := renderSchema(c.Format)
	if err != nil {
		return err
	}
	_, err = s.out.Write(b)
	return err
}

func renderSchema(format string) ([]byte, error) {
	if format == "cue" {
		return schemaSource()
	}
	return nil, fmt.Errorf("format %q", format)
}

// schemaSource returns the schema's files one after the other, each under its name.
func schemaSource() ([]byte, error) {
	var b bytes.Buffer
	names, err := fs.Glob(schema.FS, "*.cue")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "// -- %s/%s --\n\n%s\n", schema.ImportPath, name, text)
	}
	return b.Bytes(), nil
}
