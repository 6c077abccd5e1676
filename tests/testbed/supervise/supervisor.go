package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// process is one child that the owner asked for.
type process struct {
	name  string
	pid   int
	stage int
	grace time.Duration
	// killReply is the id of a SIGKILL request to answer at the exit, or 0.
	killReply int
}

// supervisor is the state of the main loop; no other goroutine touches it.
type supervisor struct {
	home     *home
	out      *json.Encoder
	children chan os.Signal // SIGCHLD
	stop     chan os.Signal // SIGTERM, SIGINT
	detached bool
	// running holds the children that the owner asked for, by pid. Adopted
	// orphans are reaped but not in here.
	running  map[int]*process
	cleanups [][]string
	keepLogs string
}

func newSupervisor(h *home, out *json.Encoder) *supervisor {
	s := &supervisor{
		home:     h,
		out:      out,
		children: make(chan os.Signal, 1),
		stop:     make(chan os.Signal, 1),
		running:  map[int]*process{},
	}
	signal.Notify(s.children, syscall.SIGCHLD)
	signal.Notify(s.stop, syscall.SIGTERM, syscall.SIGINT)
	return s
}

// loop serves requests until the owner is gone or asks us to stop.
func (s *supervisor) loop(requests <-chan request) {
	for {
		select {
		case r, open := <-requests:
			if !open {
				if !s.detached {
					return
				}
				requests = nil // never ready again
				continue
			}
			s.serve(r)
		case <-s.children:
			s.reap()
		case <-s.stop:
			return
		}
	}
}

func (s *supervisor) serve(r request) {
	answer := reply{ID: r.ID}
	var err error
	switch r.Op {
	case opStart:
		answer.Pid, err = s.start(r)
	case opSignal:
		var later bool
		if later, err = s.signal(r); later {
			return
		}
	case opCleanup:
		s.cleanups = append(s.cleanups, r.Argv)
	case opKeepLogs:
		s.keepLogs = r.Dir
	case opDetach:
		s.detached = true
		err = releaseStderr(filepath.Join(s.home.dir, "logs", "supervise.log"))
	default:
		err = errors.Join(fmt.Errorf("unknown operation %q", r.Op), r.malformed)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	s.emit(answer)
}

func (s *supervisor) start(r request) (int, error) {
	if p := s.find(r.Name); p != nil {
		return 0, fmt.Errorf("process %s runs already", r.Name)
	}
	if len(r.Argv) == 0 {
		return 0, fmt.Errorf("process %s has no argv", r.Name)
	}
	pid, err := spawn(r.Argv, r.Env, r.Log)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", r.Name, err)
	}
	s.running[pid] = &process{
		name:  r.Name,
		pid:   pid,
		stage: r.Stage,
		grace: time.Duration(r.GraceMS) * time.Millisecond,
	}
	return pid, nil
}

// spawn starts a process that dies with this one. It is not os/exec, whose Wait
// would compete with the reaping of adopted orphans.
func spawn(argv, env []string, log string) (int, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, err
	}
	if log == "" {
		log = os.DevNull
	}
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer output.Close()
	input, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer input.Close()
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   append(os.Environ(), env...),
		Files: []uintptr{input.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
}

// releaseStderr turns our own complaints to a file: whoever reads the owner's
// output would wait for its end as long as we hold it open.
func releaseStderr(log string) error {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	return syscall.Dup3(int(file.Fd()), int(os.Stderr.Fd()), 0)
}

// signal reports whether the reply comes later, with the exit.
func (s *supervisor) signal(r request) (later bool, err error) {
	p := s.find(r.Name)
	if p == nil {
		return false, fmt.Errorf("process %s does not run", r.Name)
	}
	if err := syscall.Kill(p.pid, syscall.Signal(r.Signal)); err != nil {
		return false, fmt.Errorf("signal %s: %w", r.Name, err)
	}
	if syscall.Signal(r.Signal) == syscall.SIGKILL {
		p.killReply = r.ID
		return true, nil
	}
	return false, nil
}

func (s *supervisor) find(name string) *process {
	for _, p := range s.running {
		if p.name == name {
			return p
		}
	}
	return nil
}

// reap collects every child that has ended, and says so for those with a name.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		p := s.running[pid]
		if p == nil {
			continue // an adopted orphan
		}
		delete(s.running, pid)
		code := status.ExitStatus()
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
		if p.killReply != 0 {
			s.emit(reply{ID: p.killReply, Pid: pid})
		}
		s.emit(event{Event: "exited", Name: p.name, Pid: pid, Code: code})
	}
}

// emit writes to the owner, who may be gone.
func (s *supervisor) emit(message any) {
	_ = s.out.Encode(message)
}
