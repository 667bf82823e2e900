package ir

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// http is the section about requests.
func (d *dumper) http() {
	h := &d.p.HTTP
	if !h.On() {
		return
	}
	rest := "the rest is refused"
	if len(h.Allow) == 0 {
		rest = "the rest is NOT RESTRICTED"
	}
	d.section("http  %s", rest)
	rows := []row{{cells: []string{"ports", portNumbers(d.p.Net.Intercepted), "TCP to any host goes through the proxy, UDP is refused"}, origin: h.Origin}}
	for _, l := range []struct {
		verb  string
		rules []HTTPRule
	}{{"allow", h.Allow}, {"deny", h.Deny}} {
		for i := range l.rules {
			r := &l.rules[i]
			rows = append(rows, row{cells: []string{l.verb, r.Describe(), r.note()}, origin: r.Origin})
		}
	}
	rows = append(rows, row{cells: []string{"tls", h.tlsText()}, origin: h.CAOrigin})
	for _, f := range h.InjectCA {
		rows = append(rows, row{cells: []string{"inject_ca", f.Path}, origin: f.Origin})
	}
	if h.CAOut != "" {
		rows = append(rows, row{cells: []string{"ca_out", h.CAOut}, origin: h.OutOrigin})
	}
	if h.UpstreamCA != "" {
		rows = append(rows, row{cells: []string{"trusts", h.UpstreamCA, "besides what the host trusts"}})
	}
	for i := range h.Credentials {
		c := &h.Credentials[i]
		rows = append(rows, row{cells: []string{"credential", c.Name + " = " + c.Describe()}, origin: c.Origin})
	}
	for i := range h.Auth {
		rows = append(rows, h.Auth[i].row())
	}
	rows = append(rows, row{cells: []string{"limits", h.Limits.String()}})
	if h.RedactQuery {
		rows = append(rows, row{cells: []string{"log", "without queries"}})
	}
	d.rows(rows)
}

func (r *HTTPRule) note() string {
	switch {
	case r.Opaque:
		return "TLS is NOT DECRYPTED"
	case r.Reason != "":
		return "# " + r.Reason
	}
	return ""
}

func (h *HTTP) tlsText() string {
	switch h.Authority {
	case AuthorityOwn:
		return "decrypted, authority " + h.CA + ", key " + h.Key
	case AuthorityEphemeral:
		return "decrypted, authority of the run"
	}
	for i := range h.Allow {
		if h.Allow[i].Opaque {
			return "refused but to hosts above"
		}
	}
	return "refused"
}

func (a *HTTPAuth) row() row {
	var notes []string
	if a.AddOnly {
		notes = append(notes, "keeps the request's own")
	}
	if a.Plain {
		notes = append(notes, "ALSO UNENCRYPTED")
	}
	text := a.Rule.Describe() + " gets " + a.Credential + " as " + a.Describe()
	return row{cells: []string{"auth", text, strings.Join(notes, ", ")}, origin: a.Origin}
}

// String writes the bounds as goldens do.
func (l HTTPLimits) String() string {
	body := "unlimited"
	if l.BodyBytes > 0 {
		body = sizeText(l.BodyBytes)
	}
	ms := func(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
	return fmt.Sprintf("%d connections; head %s in %v, body %s, idle %v", l.Connections, sizeText(l.HeaderBytes), ms(l.HeaderMS), body, ms(l.IdleMS))
}

func portNumbers(ports []uint16) string {
	var items []string
	for _, p := range ports {
		items = append(items, strconv.Itoa(int(p)))
	}
	return strings.Join(items, ",")
}

type httpView struct {
	Ports       []uint16         `json:"ports"`
	Allow       []httpRuleView   `json:"allow"`
	Deny        []httpRuleView   `json:"deny"`
	TLS         string           `json:"tls"`
	CA          string           `json:"ca,omitempty"`
	Key         string           `json:"key,omitempty"`
	InjectCA    []string         `json:"inject_ca,omitempty"`
	CAOut       string           `json:"ca_out,omitempty"`
	UpstreamCA  string           `json:"upstream_ca,omitempty"`
	Credentials []credentialView `json:"credentials,omitempty"`
	Auth        []httpAuthView   `json:"auth,omitempty"`
	Limits      httpLimitsView   `json:"limits"`
	RedactQuery bool             `json:"redact_query,omitempty"`
}

type httpRuleView struct {
	Rule        string `json:"rule"`
	Passthrough bool   `json:"passthrough,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Origin      string `json:"origin,omitempty"`
}

type credentialView struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Origin string `json:"origin,omitempty"`
}

type httpAuthView struct {
	Rule       string `json:"rule"`
	Credential string `json:"credential"`
	As         string `json:"as"`
	AddOnly    bool   `json:"add_only,omitempty"`
	Plain      bool   `json:"plain,omitempty"`
	Origin     string `json:"origin,omitempty"`
}

type httpLimitsView struct {
	HeaderBytes uint64 `json:"header_bytes"`
	BodyBytes   uint64 `json:"body_bytes,omitempty"`
	Connections uint32 `json:"connections"`
	HeaderMS    uint64 `json:"header_ms"`
	IdleMS      uint64 `json:"idle_ms"`
}

// httpView is nil where there is no proxy.
func (p *Program) httpView() *httpView {
	h := &p.HTTP
	if !h.On() {
		return nil
	}
	l := &h.Limits
	v := &httpView{
		Ports: p.Net.Intercepted, Allow: p.httpRuleViews(h.Allow), Deny: p.httpRuleViews(h.Deny),
		TLS: map[HTTPAuthority]string{AuthorityNone: "refused", AuthorityOwn: "own", AuthorityEphemeral: "ephemeral"}[h.Authority],
		CA:  h.CA, Key: h.Key, CAOut: h.CAOut, UpstreamCA: h.UpstreamCA, RedactQuery: h.RedactQuery,
		Limits: httpLimitsView{l.HeaderBytes, l.BodyBytes, l.Connections, l.HeaderMS, l.IdleMS},
	}
	for _, f := range h.InjectCA {
		v.InjectCA = append(v.InjectCA, f.Path)
	}
	for i := range h.Credentials {
		c := &h.Credentials[i]
		v.Credentials = append(v.Credentials, credentialView{c.Name, c.Describe(), p.at(c.Origin)})
	}
	for i := range h.Auth {
		a := &h.Auth[i]
		v.Auth = append(v.Auth, httpAuthView{a.Rule.Describe(), a.Credential, a.Describe(), a.AddOnly, a.Plain, p.at(a.Origin)})
	}
	return v
}

func (p *Program) httpRuleViews(rules []HTTPRule) []httpRuleView {
	views := []httpRuleView{}
	for i := range rules {
		r := &rules[i]
		views = append(views, httpRuleView{r.Describe(), r.Opaque, r.Reason, p.at(r.Origin)})
	}
	return views
}
