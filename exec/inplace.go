package exec

import (
	"fmt"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// becomeCommand confines this thread and executes the command in place of the executor (program.no_supervisor). It
// returns only on failure.
func (s *sandbox) becomeCommand(plan *stage.Plan, rs *rulesets) error {
	if s.options.Explain {
		return &SetupError{[]string{"--explain-denials needs a supervisor, and the policy has none (program.no_supervisor)"}}
	}
	if s.options.Timeout > 0 {
		return &SetupError{[]string{"--timeout needs a supervisor, and the policy has none (program.no_supervisor)"}}
	}
	if s.bound.tmp != "" {
		return &SetupError{[]string{"${tmp} needs a supervisor to remove it, and the policy has none (program.no_supervisor)"}}
	}
	if err := stage.BecomeInPlace(plan); err != nil {
		return s.startFailure(err)
	}
	return &SetupError{[]string{fmt.Sprintf("%s did not start", plan.Argv[0])}}
}
