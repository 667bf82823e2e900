package exec_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Two sandboxes of one program have a proxy each, with the credentials that each was given.
func TestCmdHTTP(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.URL.Path, " ", r.Header.Get("Authorization"))
		}))
		defer up.Close()
		_, port, _ := strings.Cut(strings.TrimPrefix(up.URL, "http://"), ":")
		a := load(t, b, exectest.Grants{More: fmt.Sprintf(`http: {
	allow: ["GET 127.0.0.1/ok"]
	ports: [%s]
	credentials: token: source: "env:TOKEN"
	auth: [{rule: "GET 127.0.0.1/*", credential: "token", as: "bearer", plain: true}]
}`, port)})
		const script = `
import os, sys, urllib.error, urllib.request
print(urllib.request.urlopen(sys.argv[1] + "/ok").read().decode(), os.environ.get("TOKEN"))
try: urllib.request.urlopen(sys.argv[1] + "/no")
except urllib.error.HTTPError as e: print(e.code)
`
		var logs [2]strings.Builder
		outputs := make(chan string, 2)
		for i, token := range []string{"one", "two"} {
			c := a.Command(bounded(t), py, "-c", script, up.URL)
			c.Helper, c.Env = exectest.Helper(t), []string{"PATH=/usr/bin:/bin", "HOME=" + b.Work, "TOKEN=" + token}
			c.Audit = audit.New(&logs[i], "", "")
			go func() {
				out, err := c.CombinedOutput()
				outputs <- fmt.Sprintf("%s%v", out, err)
			}()
		}
		got := <-outputs
		got += <-outputs
		for _, token := range []string{"one", "two"} {
			if want := "/ok Bearer " + token + " None\n403\n<nil>"; !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		}
		for i := range logs {
			log := logs[i].String()
			for _, want := range []string{`"event":"request"`, `"credential":"token"`, `"event":"denied"`, `"status":403`, `"event":"warning"`} {
				if strings.Count(log, want) != 1 {
					t.Errorf("%s is not there once:\n%s", want, log)
				}
			}
			if strings.Contains(log, "Bearer") {
				t.Errorf("a credential is in the audit stream:\n%s", log)
			}
		}
	})
}
