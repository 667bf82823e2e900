package cover

// children are what the test program does instead of running tests, by the name in childVariable.
var children = map[string]func(args []string){}
