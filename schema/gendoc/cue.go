package gendoc

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"cuelang.org/go/cue/format"

	"github.com/sandlock-go/sandlock/schema"
)

// CUE returns the package of #Policy as one file that CUE accepts.
func CUE() ([]byte, error) {
	names, err := fs.Glob(schema.FS, "*.cue")
	if err != nil {
		return nil, fmt.Errorf("list schema: %w", err)
	}
	var imports []string
	var body bytes.Buffer
	for _, name := range names {
		data, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		imports = append(imports, splitFile(&body, name, string(data))...)
	}
	slices.Sort(imports)
	var b bytes.Buffer
	b.WriteString("package policy\n\nimport (\n")
	for _, path := range slices.Compact(imports) {
		fmt.Fprintf(&b, "\t%s\n", path)
	}
	b.WriteString(")\n")
	b.Write(body.Bytes())
	out, err := format.Source(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("format schema: %w", err)
	}
	return out, nil
}

// splitFile copies what follows a file's package clause and imports, and returns the imports, quoted.
func splitFile(b *bytes.Buffer, name, text string) (imports []string) {
	_, text, _ = strings.Cut(text, "package policy\n")
	fmt.Fprintf(b, "\n// From %s.\n", name)
	inBlock := false
	for _, line := range strings.SplitAfter(text, "\n") {
		trimmed := strings.TrimSpace(line)
		single, isImport := strings.CutPrefix(trimmed, "import ")
		switch {
		case trimmed == "import (":
			inBlock = true
		case inBlock && trimmed == ")":
			inBlock = false
		case inBlock:
			imports = append(imports, trimmed)
		case isImport:
			imports = append(imports, single)
		default:
			b.WriteString(line)
		}
	}
	return imports
}
