package load

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"cuelang.org/go/cue/load"
	"cuelang.org/go/mod/modfile"
	"cuelang.org/go/mod/modregistry"
	"cuelang.org/go/mod/module"

	"github.com/sandlock-go/sandlock/schema"
)

// virtualRoot is where the embedded module seems to lie. Nothing is ever read there; positions in the schema are
// recognised by it. CUE's loader takes a registry's module only by a path of the host's file system, so the files are
// served twice: their location by [registry], their bytes by the overlay.
const virtualRoot = "/.sandlock/schema@v0"

// moduleBase is [schema.ModulePath] without its major version.
var moduleBase, _, _ = strings.Cut(schema.ModulePath, "@")

// registry serves the embedded module and nothing else, so that loading never touches the network or a cache.
type registry struct{}

// embeddedFS gives the embedded module a place in the host's file system (module.OSRootFS).
type embeddedFS struct{ fs.FS }

func (embeddedFS) OSRoot() string { return virtualRoot }

func (registry) ModFile(_ context.Context, mv module.Version) (*modfile.File, error) {
	if err := served(mv); err != nil {
		return nil, err
	}
	const name = "cue.mod/module.cue"
	data, err := fs.ReadFile(schema.FS, name)
	if err != nil {
		return nil, fmt.Errorf("read embedded module: %w", err)
	}
	return modfile.Parse(data, virtualRoot+"/"+name)
}

func (registry) Fetch(_ context.Context, mv module.Version) (module.SourceLoc, error) {
	if err := served(mv); err != nil {
		return module.SourceLoc{}, err
	}
	return module.SourceLoc{FS: embeddedFS{schema.FS}, Dir: "."}, nil
}

func (r registry) FetchFromCache(mv module.Version) (module.SourceLoc, error) {
	return r.Fetch(context.Background(), mv)
}

func (registry) ModuleVersions(_ context.Context, mpath string) ([]string, error) {
	if base, _, _ := strings.Cut(mpath, "@"); base == moduleBase {
		return []string{schema.Version}, nil
	}
	return nil, nil
}

func served(mv module.Version) error {
	if mv.Path() == schema.ModulePath {
		return nil
	}
	return fmt.Errorf("%v: %w", mv, modregistry.ErrNotFound)
}

// overlaySchema adds the embedded files to an overlay.
func overlaySchema(overlay map[string]load.Source) error {
	return fs.WalkDir(schema.FS, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return err
		}
		overlay[virtualRoot+"/"+name] = load.FromBytes(data)
		return nil
	})
}
