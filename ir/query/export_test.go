package query

import "fmt"

// Readings shows what servers may take a path for.
func (p *HTTPPath) Readings() string { return fmt.Sprintf("%q", p.readings) }
