package supervise

// Walk visits every process beneath roots once, parents before their children. visit says whether to go on to a
// process's children, which are read after it returns: if it stopped the process, none can be missed. A process that
// changes parents during the walk may be missed; who must know repeats the walk until nothing changed.
func Walk(roots []int, children func(pid int) ([]int, error), visit func(pid int) (descend bool, err error)) error {
	queue := append([]int(nil), roots...)
	seen := make(map[int]bool, len(queue))
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		descend, err := visit(pid)
		if err != nil {
			return err
		}
		if !descend {
			continue
		}
		if next, err := children(pid); err == nil {
			queue = append(queue, next...)
		}
	}
	return nil
}
