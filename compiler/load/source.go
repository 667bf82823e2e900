package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/load"
	"cuelang.org/go/cue/parser"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/schema"
)

// maxFile bounds one policy file.
const maxFile = 1 << 20

// source is a policy's files, found and parsed.
type source struct {
	names     names
	instances []*build.Instance
	files     []string // absolute names of file arguments
	stdin     []byte
	parsed    diag.List // mistakes in the files' bytes
}

func failure(rule, format string, args ...any) diag.List {
	return diag.List{{Rule: rule, Msg: fmt.Sprintf(format, args...)}}
}

// open finds and parses the files of a policy.
func open(opts Options) (*source, diag.List) {
	dir, root, err := opts.directories()
	if err != nil {
		return nil, failure("open", "%v", err)
	}
	s := &source{names: names{root: root}}
	args, diags := s.arguments(opts, dir)
	if diags != nil {
		return nil, diags
	}
	overlay := map[string]load.Source{}
	if err := overlaySchema(overlay); err != nil {
		return nil, failure("internal", "read embedded schema: %v", err)
	}
	if d := overlayModule(overlay, s.names); d != nil {
		return nil, d
	}
	cfg := &load.Config{Dir: dir, ModuleRoot: root, Overlay: overlay, Registry: registry{}, Tags: opts.Tags, ParseFile: s.parse, Stdin: strings.NewReader("")}
	for _, arg := range args {
		if arg == "-" {
			data, err := readStdin(opts.Stdin)
			if err != nil {
				return nil, failure("open", "read standard input: %v", err)
			}
			s.stdin, cfg.Stdin = data, bytes.NewReader(data)
		}
	}
	s.instances = load.Instances(args, cfg)
	return s, nil
}

func readStdin(r io.Reader) ([]byte, error) {
	if r == nil {
		r = os.Stdin
	}
	return io.ReadAll(io.LimitReader(r, maxFile+1)) // one byte more, so that parse sees that it is too long
}

// directories returns the directory that packages are looked for in, and the root that file names are relative to.
func (opts Options) directories() (dir, root string, err error) {
	base, err := filepath.Abs(opts.Dir)
	if err != nil {
		return "", "", fmt.Errorf("find working directory: %w", err)
	}
	dir = base
	if len(opts.Args) > 0 {
		switch arg := opts.Args[0]; {
		case isFile(arg):
			dir = filepath.Dir(inDir(base, arg))
		case isDirectory(arg):
			dir = inDir(base, arg)
		}
	}
	for at := dir; ; at = filepath.Dir(at) {
		if info, err := os.Stat(filepath.Join(at, "cue.mod")); err == nil && info.IsDir() {
			return dir, at, nil
		}
		if at == filepath.Dir(at) {
			return dir, dir, nil
		}
	}
}

func isFile(arg string) bool { return strings.HasSuffix(arg, ".cue") }

func isDirectory(arg string) bool {
	return arg == "." || arg == ".." || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../") || filepath.IsAbs(arg)
}

func inDir(base, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(base, name)
}

// arguments checks opts.Args and returns them as CUE's loader wants them in dir.
func (s *source) arguments(opts Options, dir string) ([]string, diag.List) {
	base, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, failure("open", "find working directory: %v", err)
	}
	if len(opts.Args) == 0 {
		return []string{"."}, nil
	}
	var args []string
	var diags diag.List
	for _, arg := range opts.Args {
		switch {
		case arg == "-":
			args = append(args, arg)
		case strings.Contains(arg, "..."):
			diags.Add(diag.Diagnostic{Rule: "argument", Msg: fmt.Sprintf("%q names several packages; a policy is one", arg)})
		case isFile(arg):
			name := inDir(base, arg)
			if err := checkFile(name); err != nil {
				diags.Add(diag.Diagnostic{Pos: s.names.file(name), Rule: "open", Msg: err.Error()})
				continue
			}
			s.files = append(s.files, name)
			args = append(args, name)
		case isDirectory(arg):
			rel, err := filepath.Rel(dir, inDir(base, arg))
			if err != nil {
				return nil, failure("open", "find package %q: %v", arg, err)
			}
			args = append(args, "./"+filepath.ToSlash(rel))
		case strings.HasPrefix(arg, "-") || strings.HasSuffix(arg, ":") || filepath.Ext(arg) != "" && fileExists(inDir(base, arg)):
			diags.Add(diag.Diagnostic{Rule: "argument", Msg: fmt.Sprintf("%q is neither a .cue file nor a package", arg)})
		default:
			args = append(args, arg)
		}
	}
	return args, diags
}

func fileExists(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

// checkFile refuses what cannot be a policy before anything reads it: a device would never end.
func checkFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file")
	case err != nil:
		return errors.Unwrap(err)
	case info.IsDir():
		return errors.New("is a directory")
	case !info.Mode().IsRegular():
		return errors.New(`is not a regular file; use "-" for standard input`)
	}
	return nil
}

// parse is called by CUE's loader for every file. It reads the user's files itself: what the loader passes has been
// through a decoder that replaces invalid bytes. Mistakes in the bytes are recorded here, since the loader keeps only
// the text of an error.
func (s *source) parse(name string, src any, cfg parser.Config) (*ast.File, error) {
	if strings.HasPrefix(name, virtualRoot) || filepath.Base(filepath.Dir(name)) == "cue.mod" {
		return parser.ParseFile(name, src, cfg)
	}
	data := s.stdin
	if name != "-" {
		var err error
		if data, err = readFile(name); err != nil {
			return nil, err
		}
	}
	if err := s.checkBytes(name, data); err != nil {
		return nil, err
	}
	return parser.ParseFile(name, data, cfg)
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// build evaluates the files to one value.
func (s *source) build(ctx *cue.Context) (cue.Value, diag.List) {
	x := explainer{names: s.names}
	user := cue.Value{}
	for _, inst := range s.instances {
		if inst.Err != nil {
			if s.parsed != nil {
				return user, s.parsed
			}
			return user, x.explain(inst.Err)
		}
		v := ctx.BuildInstance(inst)
		if !user.Exists() {
			user = v
			continue
		}
		user = user.Unify(v)
	}
	if !user.Exists() && user.Err() == nil {
		return user, failure("open", "no policy files")
	}
	if user.IncompleteKind()&cue.StructKind == 0 && user.Err() == nil {
		return user, diag.List{{Pos: policy.Place{File: s.firstFile()}, Rule: "type", Msg: fmt.Sprintf("a policy is a struct, not a %v", user.IncompleteKind())}}
	}
	return user, nil
}

// firstFile returns the name of the policy's first file.
func (s *source) firstFile() string {
	if len(s.files) > 0 {
		return s.names.file(s.files[0]).File
	}
	for _, inst := range s.instances {
		for _, f := range inst.Files {
			return s.names.file(f.Filename).File
		}
	}
	return "-"
}

// defaultName is the name of a policy that does not give one: its first file's, or its package's. It never depends on
// the directory, which differs between hosts.
func (s *source) defaultName() string {
	name := ""
	if len(s.files) > 0 {
		name = strings.TrimSuffix(filepath.Base(s.files[0]), ".cue")
	} else if len(s.instances) > 0 {
		name = s.instances[0].PkgName
	}
	if name == "_" || policy.CheckName(name) != nil {
		return "policy"
	}
	return name
}

// buildSchema evaluates the embedded schema, or finds it among what the policy imports. It is recognised by its place,
// which no file on disk can have.
func buildSchema(ctx *cue.Context, instances []*build.Instance) (language, error) {
	if inst := importedSchema(instances, map[*build.Instance]bool{}); inst != nil {
		return newLanguage(ctx.BuildInstance(inst))
	}
	names, err := fs.Glob(schema.FS, "*.cue")
	if err != nil {
		return language{}, err
	}
	inst := build.NewContext().NewInstance(virtualRoot, nil)
	inst.ImportPath = schema.ModulePath
	for _, name := range names {
		data, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return language{}, err
		}
		file, err := parser.ParseFile(virtualRoot+"/"+name, data, parser.ParseComments)
		if err != nil {
			return language{}, err
		}
		if err := inst.AddSyntax(file); err != nil {
			return language{}, err
		}
	}
	if err := inst.Complete(); err != nil {
		return language{}, err
	}
	return newLanguage(ctx.BuildInstance(inst))
}

func importedSchema(instances []*build.Instance, seen map[*build.Instance]bool) *build.Instance {
	for _, inst := range instances {
		if seen[inst] {
			continue
		}
		seen[inst] = true
		if inst.Dir == virtualRoot && inst.Err == nil {
			return inst
		}
		if found := importedSchema(inst.Imports, seen); found != nil {
			return found
		}
	}
	return nil
}

// language is the evaluated schema.
type language struct {
	root, policy, defaults, elements cue.Value
}

func newLanguage(v cue.Value) (language, error) {
	lang := language{
		root:     v,
		policy:   v.LookupPath(cue.ParsePath("#Policy")),
		defaults: v.LookupPath(cue.ParsePath("#Defaults")),
		elements: v.LookupPath(cue.ParsePath("#ElementDefaults")),
	}
	return lang, errors.Join(v.Err(), lang.policy.Err(), lang.defaults.Err(), lang.elements.Err())
}
