package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Traffic compares how much of something a program gets done in a second, bare and inside.
type Traffic struct {
	Name         string
	Unit         string
	Bare, Inside float64
	Higher       bool // more is better
	Target       string
	Gap          string // why it was not measured
}

// Ports that bench/network.cue names.
const (
	trafficPort = "39518"
	redisPort   = "39519"
)

// measureTraffic compares connections and datagrams by the probe, then a server and its clients inside one sandbox.
func (w workshop) measureTraffic() ([]Traffic, error) {
	stop, err := serveTraffic("127.0.0.1:" + trafficPort)
	if err != nil {
		return nil, err
	}
	defer stop()
	plans := []struct {
		name, unit, target string
		attempt            []string
	}{
		{"connect and close, waiting", "connections/s", "≥ 0.6", []string{"connect-loop", "3000", "127.0.0.1:" + trafficPort, "0"}},
		{"connect and close, not waiting", "connections/s", "≥ 0.6", []string{"connect-loop", "3000", "127.0.0.1:" + trafficPort, "1"}},
		{"UDP, an address with each packet", "packets/s", "≥ 0.25", []string{"datagram-loop", "20000", "127.0.0.1:" + trafficPort}},
	}
	bare, inside := make([][]float64, len(plans)), make([][]float64, len(plans))
	for range callRounds {
		for i, plan := range plans {
			for _, side := range []struct {
				samples *[]float64
				prefix  []string
			}{{&bare[i], nil}, {&inside[i], w.networked()}} {
				ns, err := nanoseconds(join(side.prefix, []string{w.path("probe/probe")}, plan.attempt))
				if err != nil {
					return nil, err
				}
				*side.samples = append(*side.samples, 1e9/ns)
			}
		}
	}
	var list []Traffic
	for i, plan := range plans {
		list = append(list, Traffic{Name: plan.name, Unit: plan.unit, Target: plan.target, Bare: median(bare[i]), Inside: median(inside[i]), Higher: true})
	}
	redis, err := w.measureRedis()
	return append(list, redis...), err
}

// networked runs a command under rules about addresses.
func (w workshop) networked() []string {
	return []string{w.path("sandlock-exec"), "-p", "dir=" + w.path("probe"), w.path("network.sbx"), "--"}
}

// serveTraffic takes what is sent to an address, and connections, and lets them go.
func serveTraffic(address string) (stop func(), err error) {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	packets, err := net.ListenPacket("udp4", address)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	go func() {
		var b [2048]byte
		for {
			if _, _, err := packets.ReadFrom(b[:]); err != nil {
				return
			}
		}
	}()
	return func() { _ = l.Close(); _ = packets.Close() }, nil
}

const (
	redisRounds = 3 // pairs of bare and sandboxed runs
	redisTime   = time.Minute
)

// measureRedis has redis-server and redis-benchmark in one sandbox, where the server's data never pass the supervisor.
func (w workshop) measureRedis() ([]Traffic, error) {
	server, err := exec.LookPath("redis-server")
	if err != nil {
		return []Traffic{{Name: "redis", Gap: "redis-server is not installed"}}, nil
	}
	script := fmt.Sprintf(`%s --bind 127.0.0.1 --port %s --save "" >/dev/null & server=$!
for i in 1 2 3 4 5 6 7 8 9 10; do redis-cli -p %[2]s ping >/dev/null 2>&1 && break; sleep 0.2; done
redis-cli -p %[2]s ping >/dev/null || exit 1
redis-benchmark -p %[2]s -t get,set -n 60000 -c 20 --csv; kill $server; wait $server 2>/dev/null`, server, redisPort)
	// By test: requests/s, and the 99th percentile in milliseconds.
	type numbers map[string][2][]float64
	sides := [2]numbers{{}, {}}
	for range redisRounds {
		for i, prefix := range [][]string{nil, w.networked()} {
			argv := join(prefix, []string{"/bin/sh", "-c", script})
			ctx, cancel := context.WithTimeout(context.Background(), redisTime)
			defer cancel() // redis-benchmark tries for ever to reach a server that is not there
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Dir = w.path("probe")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				return nil, fmt.Errorf("redis: %w: %s", err, stderr.String())
			}
			for line := range strings.Lines(string(out)) {
				f := strings.Split(strings.ReplaceAll(strings.TrimSpace(line), `"`, ""), ",")
				if len(f) < 7 || f[0] != "GET" && f[0] != "SET" {
					continue
				}
				rate, err1 := strconv.ParseFloat(f[1], 64)
				p99, err2 := strconv.ParseFloat(f[6], 64)
				if err1 != nil || err2 != nil {
					return nil, fmt.Errorf("redis-benchmark printed %q", line)
				}
				n := sides[i][f[0]]
				n[0], n[1] = append(n[0], rate), append(n[1], p99)
				sides[i][f[0]] = n
			}
		}
		time.Sleep(time.Second) // for the port
	}
	var list []Traffic
	for _, test := range []string{"GET", "SET"} {
		for k, what := range []Traffic{
			{Name: "redis " + test, Unit: "requests/s", Target: "≥ 0.99", Higher: true},
			{Name: "redis " + test + ", 99th percentile", Unit: "ms", Target: "≥ 0.99 (bare to inside)"},
		} {
			if len(sides[0][test][k]) == 0 || len(sides[1][test][k]) == 0 {
				return nil, fmt.Errorf("redis-benchmark has no %s", test)
			}
			what.Bare, what.Inside = median(sides[0][test][k]), median(sides[1][test][k])
			list = append(list, what)
		}
	}
	return list, nil
}
