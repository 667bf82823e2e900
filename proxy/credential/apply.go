package credential

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Outcome is what became of a request.
type Outcome uint8

// Outcomes.
const (
	Injected Outcome = iota + 1 // the secret is in it
	Kept                        // what the sandbox put there is in it
)

func (o Outcome) String() string {
	switch o {
	case Injected:
		return "injected"
	case Kept:
		return "kept"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Apply adds a secret to a request: to h, or to the query, of which it returns the new one. After an error nothing has
// changed, and the request must not be forwarded.
//
// The caller has taken hop-by-hop headers away before, those that Connection names above all: else a sandbox could have the
// proxy take the secret away again, and its own kept. Trailers are the caller's to drop.
func Apply(way Way, secret Secret, h http.Header, rawQuery string) (newQuery string, outcome Outcome, err error) {
	if err := way.Check(); err != nil {
		return rawQuery, 0, err
	}
	if way.Kind == Query {
		if way.AddOnly && hasParameter(rawQuery, way.Name) {
			return rawQuery, Kept, nil
		}
		newQuery = rawQuery
		err := secret.use(func(b []byte) error {
			newQuery = setParameter(rawQuery, way.Name, string(b))
			return nil
		})
		if err != nil {
			return rawQuery, 0, err
		}
		return newQuery, Injected, nil
	}
	name := "Authorization"
	if way.Kind == Header {
		name = way.Name
	}
	if way.AddOnly && hasHeader(h, name) {
		return rawQuery, Kept, nil
	}
	var value string
	err = secret.use(func(b []byte) (err error) {
		value, err = headerValue(way, string(b))
		return err
	})
	if err != nil {
		return rawQuery, 0, err
	}
	setHeader(h, name, value)
	return rawQuery, Injected, nil
}

// headerValue is what a header gets.
func headerValue(way Way, secret string) (string, error) {
	switch way.Kind {
	case Basic:
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(way.Name+":"+secret)), nil
	case Bearer:
		return "Bearer " + secret, checkValue(secret)
	}
	return secret, checkValue(secret)
}

// checkValue reports why a header cannot hold a secret (RFC 9110 §5.5). Space at its ends would be dropped on the way: the
// server would get another secret, which we would not recognise in its answer.
func checkValue(secret string) error {
	for i := range len(secret) {
		if c := secret[i]; c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("the secret has bytes that a header cannot hold")
		}
	}
	if secret == "" || strings.Trim(secret, " \t") != secret {
		return errors.New("the secret begins or ends with a space, which a header does not keep")
	}
	return nil
}

// hasHeader and setHeader take names as servers do, whatever form they have in the map.
func hasHeader(h http.Header, name string) bool {
	for key, values := range h {
		if len(values) > 0 && strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

func setHeader(h http.Header, name, value string) {
	for key := range h {
		if strings.EqualFold(key, name) {
			delete(h, key)
		}
	}
	h.Set(name, value)
}
