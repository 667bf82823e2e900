package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func loadText(t testing.TB, text string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.cue"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, diags := Load(Options{Dir: dir, Args: []string{"policy.cue"}})
	return diags.String(), len(diags) == 0
}

func TestBounds(t *testing.T) {
	deep := func(open, end string) string {
		return "limits: cpu: " + strings.Repeat(open, 100_000) + "1" + strings.Repeat(end, 100_000)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"file", "// " + strings.Repeat("x", maxFile), "[file-size]"},
		{"nested lists", "limits: cpu: " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000), "[type]"},
		{"lists", deep("[", "]"), "[expression-size]"},
		{"structs", deep("{a:", "}"), "[expression-size]"},
		{"parentheses", deep("(", ")"), "[expression-size]"},
		{"labels", "limits: " + strings.Repeat("a: ", 100_000) + "1", ""},
		{"operators", "limits: cpu: 1" + strings.Repeat("+1", 100_000), "[expression-size]"},
		{"signs", "limits: cpu: " + strings.Repeat("-", 100_000) + "1", ""},
		{"selectors", "limits: cpu: a" + strings.Repeat(".a", 100_000), "[expression-size]"},
		{"calls", "limits: cpu: a" + strings.Repeat("()", 100_000), ""},
		{"long message", "limits: cpu: \"" + strings.Repeat("x", 100_000) + "\"", "…"},
	} {
		got, ok := loadText(t, tc.text)
		if ok || !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %.300s, want an error with %q", tc.name, got, tc.want)
		}
		if len(got) > 2000 {
			t.Errorf("%s: message has %d bytes", tc.name, len(got))
		}
	}
}

func TestTooManyRules(t *testing.T) {
	got, ok := loadText(t, fmt.Sprintf("import \"list\"\nsyscalls: extra_deny: [for i in list.Range(0, %d, 1) {\"a\\(i)\"}]", maxItems+1))
	if want := "policy.cue:2:23: syscalls.extra_deny: has 16385 elements, at most 16384 are allowed [list-size]\n"; ok || got != want {
		t.Errorf("got %.300s want %s", got, want)
	}
}
