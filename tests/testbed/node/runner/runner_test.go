package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// boot makes a node of these programs, in the namespaces of the test.
func boot(t *testing.T, processes ...Process) (*node, error) {
	t.Helper()
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	one := &node{programs: map[string]*program{}, pids: map[int]*program{}, logs: t.TempDir()}
	reaped := make(chan struct{})
	go func() {
		one.reap(children)
		close(reaped)
	}()
	t.Cleanup(func() {
		for _, program := range one.programs {
			_ = one.end(program, syscall.SIGKILL)
		}
		// A reaper takes every child of the process: one that outlived its test
		// would take those of the next.
		signal.Stop(children)
		close(children)
		<-reaped
	})
	for _, process := range processes {
		process.Log = filepath.Join(one.logs, process.Name+".log")
		if err := one.boot(process); err != nil {
			return one, err
		}
	}
	return one, nil
}

// say sends one command as a client does.
func say(t *testing.T, one *node, line string) string {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() { _ = one.obey(listener) }()
	connection, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintln(connection, line)
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

func running(one *node, name string) int {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	return one.programs[name].pid
}

var sleeper = Process{Name: "sleeper", Argv: []string{"sleep", "600"}}

func TestAProgramIsKilledStaysDownAndIsStartedAgain(t *testing.T) {
	one, err := boot(t, sleeper)
	if err != nil {
		t.Fatal(err)
	}
	first := running(one, "sleeper")
	if answer := say(t, one, "kill sleeper"); answer != "ok" || syscall.Kill(first, 0) != syscall.ESRCH {
		t.Errorf("answer %q, or the process is still there", answer)
	}
	time.Sleep(restartDelay + 200*time.Millisecond)
	if answer := say(t, one, "status"); answer != "ok sleeper=0" {
		t.Errorf("it came back: %q", answer)
	}
	say(t, one, "start sleeper")
	if second := running(one, "sleeper"); second == 0 || second == first {
		t.Errorf("pid %d after %d", second, first)
	}
}

func TestAProgramThatEndsByItselfIsStartedAgain(t *testing.T) {
	one, err := boot(t, sleeper)
	if err != nil {
		t.Fatal(err)
	}
	first := running(one, "sleeper")
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if now := running(one, "sleeper"); now != 0 && now != first {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it never came back")
		}
	}
}

func TestAPausedProgramStandsAndCanBeKilled(t *testing.T) {
	one, err := boot(t, sleeper)
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", running(one, "sleeper")))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))[2]
	}
	// A signal takes effect when the process is next scheduled.
	reaches := func(stopped bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); (state() == "T") != stopped; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("state %s, stopped should be %t", state(), stopped)
			}
		}
	}
	say(t, one, "pause sleeper")
	reaches(true)
	say(t, one, "resume sleeper")
	reaches(false)
	say(t, one, "pause sleeper")
	if answer := say(t, one, "kill sleeper"); answer != "ok" {
		t.Error(answer)
	}
	if answer := say(t, one, "pause sleeper"); answer != "error sleeper is down" {
		t.Error(answer)
	}
}

func TestTheStartEndsAtTheFirstProgramThatFails(t *testing.T) {
	for name, bad := range map[string]Process{
		"ends with 3":  {Name: "bad", Argv: []string{"sh", "-c", "exit 3"}, Once: true},
		"is not there": {Name: "bad", Argv: []string{"no-such-program"}, Once: true},
	} {
		t.Run(name, func(t *testing.T) {
			one, err := boot(t, Process{Name: "good", Argv: []string{"true"}, Once: true}, bad, sleeper)
			if err == nil || len(one.programs) != 0 {
				t.Errorf("error %v, %d programs", err, len(one.programs))
			}
		})
	}
}

func TestCommandsRunInsideAndTellTheirExitCode(t *testing.T) {
	one, err := boot(t, sleeper)
	if err != nil {
		t.Fatal(err)
	}
	if answer := say(t, one, "run echo hello"); answer != "ok" {
		t.Error(answer)
	}
	if text, err := os.ReadFile(filepath.Join(one.logs, "run-echo.log")); err != nil || string(text) != "hello\n" {
		t.Errorf("%q, %v", text, err)
	}
	if answer := say(t, one, "run false"); answer != "error ended with exit code 1" {
		t.Error(answer)
	}
	for _, bad := range []string{"nonsense", "kill", "kill nobody", "run", "shake sleeper"} {
		if answer := say(t, one, bad); !strings.HasPrefix(answer, "error ") {
			t.Errorf("%q: %q", bad, answer)
		}
	}
}

func TestCgroupsAreMadeUsableAndRemovedWithTheirChildren(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cgroups need root")
	}
	groups := cgroups{root: "/sys/fs/cgroup", path: fmt.Sprintf("flowforge-test-%d/node", os.Getpid())}
	if err := groups.create(); err != nil {
		t.Fatal(err)
	}
	hierarchies, err := groups.hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range hierarchies {
		child := filepath.Join(hierarchy, groups.path, "child")
		if err := os.Mkdir(child, 0o755); err != nil {
			t.Error(err)
		}
		// A process can enter: a v1 cpuset has CPUs.
		inside := filepath.Join(hierarchy, groups.path, "cgroup.procs")
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.controllers")); err == nil {
			inside = filepath.Join(child, "cgroup.procs")
		}
		if err := os.WriteFile(inside, fmt.Append(nil, process.Pid), 0o644); err != nil {
			t.Error(err)
		}
	}
	if err := groups.remove(100 * time.Millisecond); err == nil {
		t.Error("a group with a process in it is said to be removed")
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = process.Wait()
	if err := groups.remove(5 * time.Second); err != nil {
		t.Error(err)
	}
	for _, hierarchy := range hierarchies {
		parent := filepath.Join(hierarchy, filepath.Dir(groups.path))
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", parent, err)
		}
	}
}

func TestANodeFileThatLacksSomethingIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.json")
	for text, good := range map[string]bool{
		`{"name":"n","keep":"/k","cgroup":"c","control":"/s","processes":[{"name":"p"}]}`: true,
		`{"name":"n","keep":"/k","cgroup":"c","control":"/s","processes":[]}`:             false,
		`{"name":"n","keep":"/k","control":"/s","processes":[{"name":"p"}]}`:              false,
		`not json`: false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readSpec(path); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Nodes of one testbed share a parent group; one that ends removes it as soon
// as it is empty, while another is about to make its own group below it.
func TestCgroupsOfNodesThatComeAndGoAtOnce(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cgroups need root")
	}
	var nodes sync.WaitGroup
	for node := range 4 {
		groups := cgroups{root: "/sys/fs/cgroup", path: fmt.Sprintf("flowforge-test-%d/many/%d", os.Getpid(), node)}
		nodes.Go(func() {
			for range 50 {
				if err := groups.create(); err != nil {
					t.Errorf("create %s: %v", groups.path, err)
				}
				if err := groups.remove(5 * time.Second); err != nil {
					t.Errorf("remove %s: %v", groups.path, err)
				}
			}
		})
	}
	nodes.Wait()
}
