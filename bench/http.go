package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Web compares what HTTP gets done, by who stands between client and server. Samples of one round belong together.
type Web struct {
	Name, Unit string
	Higher     bool // more is better
	Added      bool // what counts is what is above bare
	Samples    map[string][]float64
	Target     string // of the ratio to nginx
}

// Memory is what processes have resident, in bytes.
type Memory struct {
	Name  string
	Bytes map[string]int64
}

// HTTP is what the proxy costs.
type HTTP struct {
	Traffic []Web
	Memory  []Memory
	Starts  []Start
}

// Who stands between client and server.
const (
	sideBare    = "bare"
	sideOurs    = "sandlock"
	sideNginx   = "nginx"
	sideDefault = "nginx, defaults"
)

// Ports that bench/http.cue and bench/nginx.conf name.
const (
	webPlain  = 29520
	webSecure = 29521
)

// webSide is one way from the client to the server.
type webSide struct {
	name          string
	prefix        []string // of the client's command
	plain, secure int      // ports that the client connects to
}

const (
	webRounds = 5
	webTime   = "1500ms" // of requests, in each round
	webBody   = 1 << 30
	webIdle   = 1000
)

// measureHTTP runs everything that is about the proxy.
func (w workshop) measureHTTP(runs int) (h HTTP, err error) {
	if err := w.buildHTTP(); err != nil {
		return h, err
	}
	server, err := background(w.path("web/web"), "serve", w.path("web"), loopback(webPlain), loopback(webSecure))
	if err != nil {
		return h, err
	}
	defer server.end()
	sides := []webSide{{sideBare, nil, webPlain, webSecure}, {sideOurs, w.intercepted(), webPlain, webSecure}}
	nginx, err := w.startNginx()
	if err != nil {
		progress("without nginx: %v", err)
	} else {
		defer nginx.end()
		sides = append(sides, webSide{sideNginx, nil, 29523, 29524}, webSide{sideDefault, nil, 29525, 29526})
	}
	progress("requests")
	if h.Traffic, err = w.measureRequests(sides); err != nil {
		return h, err
	}
	progress("bodies")
	bodies, large, err := w.measureBodies(sides, nginx)
	if err != nil {
		return h, err
	}
	h.Traffic = append(h.Traffic, bodies...)
	idle, err := w.measureIdle(sides, nginx)
	if err != nil {
		return h, err
	}
	h.Memory = []Memory{large, idle}
	if runs > 0 {
		progress("starts: %d rounds", runs)
		h.Starts, err = measureStarts([]contender{
			{Name: startNetwork, Argv: join(w.inWeb("hosts.sbx"), []string{command})},
			{Name: startHTTP, Argv: join(w.inWeb("plain.sbx"), []string{command})},
			{Name: startTLS, Argv: join(w.inWeb("http.sbx"), []string{command})},
		}, runs)
	}
	return h, err
}

// The policies whose start is compared.
const (
	startNetwork = "network rules alone"
	startHTTP    = "http rules, no TLS"
	startTLS     = "http rules, TLS decrypted"
)

// buildHTTP makes both ends, their certificates, and the policies.
func (w workshop) buildHTTP() error {
	if err := os.MkdirAll(w.path("web"), 0o755); err != nil {
		return err
	}
	for _, p := range [][2]string{{"sandlock-proxy", "./cmd/sandlock-proxy"}, {"web/web", "./bench/web"}} {
		if err := run("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.path(p[0]), p[1]); err != nil {
			return err
		}
	}
	if err := os.Chmod(w.path("sandlock-proxy"), 0o755); err != nil {
		return err
	}
	if err := run(w.path("web/web"), "certify", w.path("web")); err != nil {
		return err
	}
	// What the others need of http.cue, for what its parts cost at the start.
	text, err := os.ReadFile("bench/http.cue")
	if err != nil {
		return err
	}
	rules, _, ok := bytes.Cut(text, []byte("http: {"))
	if !ok {
		return errors.New("bench/http.cue has no http")
	}
	for name, more := range map[string]string{
		"hosts": `network: allow: ["tcp://bench.test:29520,29521"]`,
		"plain": `http: {allow: ["GET bench.test/*", "POST bench.test/take"], ports: [29520, 29521]}`,
		"http":  string(text[len(rules):]),
	} {
		source := w.path("web/" + name + ".cue")
		if err := os.WriteFile(source, fmt.Appendf(nil, "%s%s\n", rules, more), 0o644); err != nil {
			return err
		}
		if err := run(w.path("sandlock-compile"), source, "-o", w.path(name+".sbx")); err != nil {
			return err
		}
	}
	return nil
}

func (w workshop) inWeb(artifact string) []string {
	return []string{w.path("sandlock-exec"), "-p", "dir=" + w.path("web"), w.path(artifact), "--"}
}

// intercepted runs a command whose requests go through the proxy.
func (w workshop) intercepted() []string { return w.inWeb("http.sbx") }

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// webClient is the client's command.
func (w workshop) webClient(side webSide, scheme string, args ...string) []string {
	port, at := webPlain, side.plain
	if scheme != "http" {
		port, at = webSecure, side.secure
	}
	return join(side.prefix, []string{w.path("web/web"), args[0], "-scheme", scheme, "-at", loopback(at),
		"-host", fmt.Sprintf("bench.test:%d", port), "-bundle", w.path("web/bundle.pem")}, args[1:])
}

func values(argv []string) (list []float64, err error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w: %s", argv, err, stderr.String())
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 || fields[0] != "value" {
		return nil, fmt.Errorf("%v printed %q", argv, text)
	}
	for _, f := range fields[1:] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return nil, fmt.Errorf("%v printed %q", argv, text)
		}
		list = append(list, v)
	}
	return list, nil
}

// Names of schemes, as people know them.
var schemes = []struct{ scheme, name string }{{"http", "HTTP"}, {"https", "HTTPS"}, {"h2", "HTTP/2"}}

// measureRequests compares rates, and latencies with one connection.
func (w workshop) measureRequests(sides []webSide) (list []Web, err error) {
	for _, s := range schemes {
		for _, connections := range []string{"1", "32"} {
			rows := []Web{
				{Name: s.name + " requests, " + connections + " at a time", Unit: "requests/s", Higher: true, Target: "≥ 0.5"},
				{Name: s.name + ", added to the median", Unit: "µs", Added: true},
				{Name: s.name + ", added to the 99th percentile", Unit: "µs", Added: true},
			}
			if connections != "1" {
				rows = rows[:1]
			}
			for i := range rows {
				rows[i].Samples = map[string][]float64{}
			}
			for range webRounds {
				for _, side := range sides {
					got, err := values(w.webClient(side, s.scheme, "requests", "-connections", connections, "-for", webTime))
					if err != nil {
						return nil, err
					}
					for i := range rows {
						v := got[i]
						if i > 0 {
							v /= 1e3
						}
						rows[i].Samples[side.name] = append(rows[i].Samples[side.name], v)
					}
				}
			}
			list = append(list, rows...)
		}
	}
	return list, nil
}

// measureBodies compares how fast a large body passes, and says what the helper has resident meanwhile.
func (w workshop) measureBodies(sides []webSide, nginx *process) (list []Web, m Memory, err error) {
	m = Memory{Name: "a body of 1 GiB, peak", Bytes: map[string]int64{}}
	for _, s := range schemes {
		for _, direction := range []string{"download", "upload"} {
			row := Web{
				Name: s.name + " " + direction + " of 1 GiB", Unit: "MB/s", Higher: true, Target: "≥ 0.8", Samples: map[string][]float64{},
			}
			for range webRounds {
				for _, side := range sides {
					if side.name == sideDefault {
						continue
					}
					args := []string{"body", "-size", strconv.Itoa(webBody), "-upload=" + strconv.FormatBool(direction == "upload")}
					watch := func(int) {}
					if side.name == sideOurs {
						watch = m.watch
					}
					got, err := watched(w.webClient(side, s.scheme, args...), watch)
					if err != nil {
						return nil, m, err
					}
					row.Samples[side.name] = append(row.Samples[side.name], got/1e6)
				}
			}
			list = append(list, row)
		}
	}
	if nginx != nil {
		m.Bytes["nginx"] = nginx.workers("VmHWM")
	}
	return list, m, nil
}

// watched runs a command, and has somebody look at it every 50 ms.
func watched(argv []string, watch func(pid int)) (float64, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			watch(cmd.Process.Pid)
		case err := <-done:
			var v float64
			if err == nil {
				_, err = fmt.Sscanf(out.String(), "value %f", &v)
			}
			if err != nil {
				return 0, fmt.Errorf("%v: %w: %s", argv, err, stderr.String())
			}
			return v, nil
		}
	}
}

// watch keeps the peaks of an executor and its helper.
func (m *Memory) watch(executor int) {
	m.Bytes["executor"] = max(m.Bytes["executor"], resident(executor, "VmHWM"))
	for _, child := range children(executor) {
		if comm(child) == "sandlock-proxy" {
			m.Bytes["helper"] = max(m.Bytes["helper"], resident(child, "VmHWM"))
		}
	}
}

// measureIdle says what is resident with connections that do nothing.
func (w workshop) measureIdle(sides []webSide, nginx *process) (m Memory, err error) {
	m = Memory{Name: fmt.Sprintf("%d idle HTTPS connections", webIdle), Bytes: map[string]int64{}}
	for _, side := range sides {
		if side.name != sideOurs && side.name != sideNginx {
			continue
		}
		argv := w.webClient(side, "https", "idle", "-connections", strconv.Itoa(webIdle))
		client, err := background(argv[0], argv[1:]...)
		if err != nil {
			return m, err
		}
		if side.name == sideOurs {
			m.watch(client.cmd.Process.Pid)
		} else {
			m.Bytes["nginx"] = nginx.workers("VmRSS")
		}
		client.end()
	}
	return m, nil
}

// process is one that runs until its standard input ends.
type process struct {
	cmd   *exec.Cmd
	input io.Closer
}

// background starts a command, and waits until it says "ready".
func background(name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, input}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		p.end()
		return nil, fmt.Errorf("%s %v is not ready: %s", name, args, stderr.String())
	}
	return p, nil
}

func (p *process) end() {
	_ = p.input.Close()
	_ = p.cmd.Wait()
}

// nginxInput ends nginx, which does not read its standard input.
type nginxInput struct{ p *os.Process }

func (n nginxInput) Close() error { return n.p.Signal(os.Interrupt) }

func (w workshop) startNginx() (*process, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile("bench/nginx.conf")
	if err != nil {
		return nil, err
	}
	conf := w.path("web/nginx.conf")
	if err := os.WriteFile(conf, text, 0o644); err != nil {
		return nil, err
	}
	args := []string{"-p", w.path("web"), "-c", conf, "-e", "error.log"}
	if os.Geteuid() == 0 {
		args = append(args, "-g", "user root;")
	}
	cmd := exec.Command(path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, nginxInput{cmd.Process}}
	for range 50 {
		time.Sleep(20 * time.Millisecond)
		if len(children(cmd.Process.Pid)) > 0 {
			return p, nil
		}
	}
	p.end()
	log, _ := os.ReadFile(w.path("web/error.log"))
	return nil, fmt.Errorf("nginx has no workers: %s%s", stderr.String(), log)
}

// workers is what the children of a process have resident.
func (p *process) workers(field string) (sum int64) {
	for _, child := range children(p.cmd.Process.Pid) {
		sum += resident(child, field)
	}
	return sum
}

func children(pid int) (list []int) {
	found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range found {
		text, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil && !slices.Contains(list, child) {
				list = append(list, child)
			}
		}
	}
	return list
}

func comm(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(text))
}

// resident reads a field of proc(5)'s status; 0 if the process is gone.
func resident(pid int, field string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, field+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
