package branch

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestEachRecord(t *testing.T) {
	const (
		dir = `{"op":"dir","path":"YQ=="}` + "\n"
		put = `{"op":"put","path":"YS9i","slot":1}` + "\n"
		end = `{"op":"end","path":"YQ=="}` + "\n"
	)
	long := fmt.Sprintf(`{"op":"drop","path":%q}`+"\n", strings.Repeat("YWJj", 1<<18)) // longer than what is read at once
	for name, tc := range map[string]struct {
		text, op, want string // want: the operations, and an error's text
	}{
		"all":              {dir + put + end, "", "dir put end"},
		"one":              {dir + put + long + end + end, opEnd, "end end"},
		"none":             {"", "", ""},
		"long":             {dir + long + end, "", "dir drop end"},
		"more than a few":  {strings.Repeat(put, 300) + end, opEnd, "end"},
		"no newline":       {dir + strings.TrimSpace(end), "", "dir end"},
		"torn":             {dir + put[:len(put)-3], "", "dir read journal: "},
		"torn, skipped":    {end + put[:len(put)-3], opEnd, "end read journal: "},
		"other text":       {end + "\n" + end, opEnd, "end read journal: "},
		"no operation":     {end + `{"op":"x","path":""}` + "\n" + `{"op":"put"` + "\n", opEnd, "end read journal: "},
		"outside":          {dir + `{"op":"put","path":"Li4="}` + "\n", "", `dir read journal: path ".."`},
		"what do fails of": {dir + put + strings.Repeat(end, 300), "", "dir put stop"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := eachRecord(strings.NewReader(tc.text), tc.op, func(r *record) error {
				got = append(got, r.Op)
				if strings.HasSuffix(tc.want, "stop") && r.Op == opPut {
					return errors.New("stop")
				}
				return nil
			})
			if err != nil {
				got = append(got, err.Error())
			}
			if text := strings.Join(got, " "); text != tc.want && (err == nil || !strings.HasPrefix(text, tc.want) || !strings.HasSuffix(tc.want, ": ")) {
				t.Errorf("got %q, want %q", text, tc.want)
			}
		})
	}
}
