package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// owner is a test's end of a supervisor that runs as a process of its own: this
// test binary, started again.
type owner struct {
	t       *testing.T
	command *exec.Cmd
	stdin   io.WriteCloser
	lines   chan event
	ready   event
	nextID  int
}

func TestMain(m *testing.M) {
	if parent := os.Getenv("SUPERVISE_TEST_PARENT"); parent != "" {
		if err := run(parent, os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startOwner(t *testing.T, parent string) *owner {
	t.Helper()
	o := launchOwner(t, parent)
	o.ready = o.expect("ready")
	return o
}

// launchOwner starts the supervisor without waiting for it.
func launchOwner(t *testing.T, parent string) *owner {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "SUPERVISE_TEST_PARENT="+parent)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	o := &owner{t: t, command: command, stdin: stdin, lines: make(chan event, 100)}
	go func() {
		defer close(o.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var said event
			if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
				t.Error(err)
			}
			if said.Event == "" {
				// A reply: its error travels as the name.
				var answer reply
				if err := json.Unmarshal(lines.Bytes(), &answer); err != nil {
					t.Error(err)
				}
				said = event{Event: "reply", Pid: answer.Pid, Name: answer.Error}
			}
			o.lines <- said
		}
	}()
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	return o
}

// expect returns the next message of a kind, and skips others.
func (o *owner) expect(kind string) event {
	o.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case said, open := <-o.lines:
			if !open {
				o.t.Fatalf("the supervisor ended without saying %q", kind)
			}
			if said.Event == kind {
				return said
			}
		case <-limit:
			o.t.Fatalf("the supervisor does not say %q", kind)
		}
	}
}

// ask returns the pid and the error of the reply.
func (o *owner) ask(r request) (int, string) {
	o.t.Helper()
	o.nextID++
	r.ID = o.nextID
	if err := json.NewEncoder(o.stdin).Encode(r); err != nil {
		o.t.Fatal(err)
	}
	said := o.expect("reply")
	return said.Pid, said.Name
}

func (o *owner) start(name string, stage int, script string) int {
	o.t.Helper()
	log := filepath.Join(o.ready.Dir, "logs", name+".log")
	pid, failed := o.ask(request{
		Op: opStart, Name: name, Argv: []string{"/bin/sh", "-c", script}, Log: log, Stage: stage, GraceMS: 5000,
	})
	if failed != "" {
		o.t.Fatal(failed)
	}
	waitFor(o.t, func() bool { text, _ := os.ReadFile(log); return strings.Contains(string(text), "up") })
	return pid
}

func waitFor(t *testing.T, happened func() bool) {
	t.Helper()
	for begin := time.Now(); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("it does not happen")
		}
	}
}

func TestStagesStopInOrder(t *testing.T) {
	parent := t.TempDir()
	o := startOwner(t, parent)
	order := filepath.Join(parent, "order")
	// Each takes its time to stop, the first the longest.
	for _, p := range []struct {
		name  string
		stage int
		delay string
	}{{"etcd", 90, "0"}, {"client", 10, "0.4"}, {"apiserver", 80, "0.2"}} {
		o.start(p.name, p.stage,
			"trap 'sleep "+p.delay+"; echo "+p.name+" >> "+order+"; exit' TERM; echo up; while :; do sleep 0.01; done")
	}
	o.stdin.Close()
	if err := o.command.Wait(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(order)
	if want := "client\napiserver\netcd\n"; string(got) != want {
		t.Errorf("stopped in order %q, want %q", got, want)
	}
	if _, err := os.Stat(o.ready.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", o.ready.Dir, err)
	}
}

func TestAStoppedProcessActsOnTheTeardown(t *testing.T) {
	parent := t.TempDir()
	o := startOwner(t, parent)
	note := filepath.Join(parent, "note")
	o.start("paused", 10, "trap 'echo bye > "+note+"; exit' TERM; echo up; while :; do sleep 0.01; done")
	if _, failed := o.ask(request{Op: opSignal, Name: "paused", Signal: int(syscall.SIGSTOP)}); failed != "" {
		t.Fatal(failed)
	}
	o.stdin.Close()
	if err := o.command.Wait(); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(note); string(text) != "bye\n" {
		t.Errorf("the paused process was killed without its grace: %q", text)
	}
}

func TestKillIsAnsweredWhenTheProcessIsGone(t *testing.T) {
	o := startOwner(t, t.TempDir())
	pid := o.start("victim", 10, "echo up; exec sleep 100")
	if _, failed := o.ask(request{Op: opSignal, Name: "victim", Signal: int(syscall.SIGKILL)}); failed != "" {
		t.Fatal(failed)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the process is still there: %v", err)
	}
	if exit := o.expect("exited"); exit.Name != "victim" || exit.Code != 128+9 {
		t.Errorf("got %+v", exit)
	}
	if _, failed := o.ask(request{Op: opSignal, Name: "victim", Signal: 9}); !strings.Contains(failed, "does not run") {
		t.Errorf("got %q", failed)
	}
	o.start("victim", 10, "echo up again; exec sleep 100") // the name is free
}

func TestRefusals(t *testing.T) {
	o := startOwner(t, t.TempDir())
	o.start("twice", 10, "echo up; exec sleep 100")
	for _, c := range []struct {
		request request
		want    string
	}{
		{request{Op: opStart, Name: "twice", Argv: []string{"true"}}, "runs already"},
		{request{Op: opStart, Name: "empty"}, "no argv"},
		{request{Op: opStart, Name: "missing", Argv: []string{"/no/such/program"}}, "no such file"},
		{request{Op: "dance"}, `unknown operation "dance"`},
	} {
		if _, failed := o.ask(c.request); !strings.Contains(failed, c.want) {
			t.Errorf("%+v: got %q, want %q in it", c.request, failed, c.want)
		}
	}
}

func TestDetachedItOutlivesItsOwnerUntilSigterm(t *testing.T) {
	o := startOwner(t, t.TempDir())
	stderr := filepath.Join("/proc", strconv.Itoa(o.command.Process.Pid), "fd/2")
	ours, _ := os.Readlink(stderr)
	pid := o.start("daemon", 10, "echo up; exec sleep 100")
	o.ask(request{Op: opDetach})
	if now, _ := os.Readlink(stderr); now == ours || !strings.HasSuffix(now, "supervise.log") {
		t.Errorf("its stderr was %s and is %s", ours, now)
	}
	o.stdin.Close()
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the process ended with the owner: %v", err)
	}
	if err := o.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := o.command.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the process is still there: %v", err)
	}
}

func TestManySupervisorsThatStartTogetherDoNotSweepEachOther(t *testing.T) {
	parent := t.TempDir()
	for range 5 {
		var owners []*owner
		for range 16 {
			owners = append(owners, launchOwner(t, parent))
		}
		for _, o := range owners {
			o.ready = o.expect("ready")
		}
		for _, o := range owners {
			if _, err := os.Stat(filepath.Join(o.ready.Dir, "logs")); err != nil {
				t.Error(err)
			}
			o.stdin.Close()
		}
	}
}

func TestSweepRemovesOnlyWhatNobodyHolds(t *testing.T) {
	parent := t.TempDir()
	made := func(name string) string {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	stale, held, foreign, unborn, forgotten := made(dirPrefix+"1-a"), made(dirPrefix+"2-b"), made(dirPrefix+"logs"),
		made(unbornPrefix+"c"), made(unbornPrefix+"d")
	for _, dir := range []string{stale, held} {
		if err := os.WriteFile(filepath.Join(dir, lockName), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockDir(held, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	long := time.Now().Add(-2 * unbornLimit)
	if err := os.Chtimes(forgotten, long, long); err != nil {
		t.Fatal(err)
	}
	sweep(parent)
	for dir, want := range map[string]bool{stale: false, held: true, foreign: true, unborn: true, forgotten: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s exists: %v, want %v", dir, err == nil, want)
		}
	}
}

func TestSupervisorsOfOneMachineHaveDifferentSlots(t *testing.T) {
	parent := t.TempDir()
	first, second := startOwner(t, parent), startOwner(t, parent)
	if first.ready.Slot == second.ready.Slot || first.ready.Dir == second.ready.Dir {
		t.Errorf("both have slot %d or directory %s", first.ready.Slot, first.ready.Dir)
	}
	if _, err := os.Stat(first.ready.Dir); err != nil {
		t.Errorf("the second has swept the first's directory: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	state, ppid, ok := parseStat("12 (a (b) c) Z 7 12 12 0")
	if state != "Z" || ppid != 7 || !ok {
		t.Errorf("got %q %d %v", state, ppid, ok)
	}
	if _, _, ok := parseStat("garbage"); ok {
		t.Error("garbage parsed")
	}
}

func TestMountsAreFoundAndUnescaped(t *testing.T) {
	if got := unescapeMount(`/a\040b\134c`); got != `/a b\c` {
		t.Errorf("got %q", got)
	}
	if mounts, err := mountsBelow("/proc"); err != nil || len(mounts) == 0 {
		t.Errorf("no mount at /proc: %v %v", mounts, err)
	}
	if mounts, err := mountsBelow("/pro"); err != nil || len(mounts) != 0 {
		t.Errorf("/pro is a prefix of a name only: %v %v", mounts, err)
	}
}
