package kernel

import (
	"os"
	osexec "os/exec"
	"strings"
	"testing"
)

// What is shown of a process's environment no longer holds the values, and what was read of them is gone, too.
func TestWipeEnvironment(t *testing.T) {
	if os.Getenv("SANDLOCK_WIPE") == "" {
		c := osexec.Command("/proc/self/exe", "-test.run", "^TestWipeEnvironment$", "-test.v")
		c.Env = []string{"SANDLOCK_WIPE=1", "TOKEN=topsecret", "TOKENS=kept", "EMPTY=", "TOKEN=topsecret"}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	held := os.Getenv("TOKEN")
	if held != "topsecret" {
		t.Fatalf("TOKEN=%q before", held)
	}
	if err := WipeEnvironment([]string{"TOKEN", "EMPTY", "MISSING"}); err != nil {
		t.Fatal(err)
	}
	shown, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), "topsecret") || !strings.Contains(string(shown), "TOKENS=kept") {
		t.Errorf("/proc/self/environ shows %q", shown)
	}
	if strings.Contains(held, "secret") {
		t.Errorf("what was read before is %q", held)
	}
}
