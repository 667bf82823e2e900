package diag

import "testing"

func TestSuggest(t *testing.T) {
	names := []string{"ptrace", "mount", "umount2", "openat", "openat2", "sysv_ipc"}
	for _, tc := range []struct{ name, want string }{
		{"ptrce", "ptrace"},
		{"prtace", "ptrace"},
		{"sysvipc", "sysv_ipc"},
		{"moun", "mount"},
		{"openta", "openat"},
		{"xyz", ""},
		{"p", ""},
		{"", ""},
	} {
		if got, _ := Suggest(tc.name, names); got != tc.want {
			t.Errorf("Suggest(%q): got %q, want %q", tc.name, got, tc.want)
		}
	}
}
