package main

// request is what the owner asks for. Every request is answered by a reply with
// its id.
type request struct {
	ID int    `json:"id"`
	Op string `json:"op"`

	// Name names a process: start, signal.
	Name string `json:"name,omitempty"`
	// Argv, Env ("KEY=value", added to the supervisor's own) and Log (a file
	// that both outputs are appended to) are for start; Argv also for cleanup.
	Argv []string `json:"argv,omitempty"`
	Env  []string `json:"env,omitempty"`
	Log  string   `json:"log,omitempty"`
	// Stage orders the teardown: the lowest stage stops first, and the next one
	// only when every process of the one before has ended.
	Stage int `json:"stage,omitempty"`
	// GraceMS is how long the process may take from SIGTERM to its end before
	// SIGKILL. Zero is SIGKILL at once.
	GraceMS int `json:"grace_ms,omitempty"`
	// Signal is a number: signal.
	Signal int `json:"signal,omitempty"`
	// Dir is where keep-logs copies the logs at teardown.
	Dir string `json:"dir,omitempty"`

	malformed error
}

// The operations.
const (
	opStart    = "start"     // start a process; a name may be used again once its process has ended
	opSignal   = "signal"    // send a signal; SIGKILL is answered when the process has been reaped
	opCleanup  = "cleanup"   // run a command at teardown, after all processes have ended, last registered first
	opKeepLogs = "keep-logs" // copy the logs somewhere at teardown
	opDetach   = "detach"    // do not tear down at the end of stdin, only at SIGTERM
)

// reply answers a request.
type reply struct {
	ID    int    `json:"id"`
	Pid   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"`
}

// event is said unasked: "ready" once, "exited" for every named process.
type event struct {
	Event string `json:"event"`
	Dir   string `json:"dir,omitempty"`
	Slot  int    `json:"slot,omitempty"`
	Name  string `json:"name,omitempty"`
	Pid   int    `json:"pid,omitempty"`
	// Code is the exit code, or 128 + the signal that ended the process.
	Code int `json:"code"`
}
