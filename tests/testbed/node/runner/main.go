// Command runner is the machine around one real node.
//
//	runner NODE.json            run the node until SIGTERM
//	runner --clean NODE.json    remove what a runner that was killed left
//
// A node is a PID namespace and a mount namespace of its own:
//
//	runner (host) --> init (PID 1 of the node) --> containerd --> shims --> containers
//	                                           --> device plugin
//	                                           --> kubelet
//
// The namespaces give each node the standard paths (/var/lib/kubelet,
// /run/containerd, ...), which the kubelet does not let one choose in full, and
// they make its end certain: when init dies, the kernel kills every process of
// the node, shims and containers included, and with the last of them go all its
// mounts. Init dies with the runner, and the runner with whoever started it. So
// whatever is killed, nothing but empty cgroups can be left behind: the runner
// removes them at its end, `--clean` and the next run of the node do, too.
//
// The network namespace is not its own: the runner is started inside the
// testbed's, which all nodes share.
//
// Init obeys commands on a unix socket, one line each: see control.go.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

const (
	// initArgument marks the second stage.
	initArgument  = "--init"
	cleanArgument = "--clean"
)

const prSetPdeathsig = 1

// cgroupPatience is how long killed processes may take to leave their cgroup.
const cgroupPatience = 5 * time.Second

func init() {
	// A parent-death signal is tied to the thread that made the child. The main
	// thread is the only one that lives as long as the process.
	runtime.LockOSThread()
}

func main() {
	var err error
	switch {
	case len(os.Args) == 2:
		err = runNode(os.Args[1])
	case len(os.Args) == 3 && os.Args[1] == initArgument:
		err = runInit(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == cleanArgument:
		err = clean(os.Args[2])
	default:
		err = fmt.Errorf("usage: runner [--clean] NODE.json")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
}

// runNode is the outer stage: it owns what namespaces do not, the cgroups.
func runNode(path string) error {
	spec, err := readSpec(path)
	if err != nil {
		return err
	}
	if err := dieWithParent(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	groups := spec.cgroups()
	if err := groups.remove(cgroupPatience); err != nil {
		return err
	}
	if err := groups.create(); err != nil {
		return err
	}
	defer func() {
		if err := groups.remove(cgroupPatience); err != nil {
			fmt.Fprintln(os.Stderr, "runner:", err)
		}
	}()
	command := exec.Command("/proc/self/exe", initArgument, path)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	go func() {
		<-stop
		_ = command.Process.Kill()
	}()
	err = command.Wait()
	if killed, ok := command.ProcessState.Sys().(syscall.WaitStatus); ok && killed.Signaled() && killed.Signal() == syscall.SIGKILL {
		return nil
	}
	return err
}

// dieWithParent has the kernel end this process in order when its starter dies,
// by a signal that leaves time to remove the cgroups.
func dieWithParent() error {
	parent := os.Getppid()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetPdeathsig, uintptr(syscall.SIGTERM), 0); errno != 0 {
		return fmt.Errorf("prctl: %w", errno)
	}
	if os.Getppid() != parent {
		return fmt.Errorf("the starter is gone")
	}
	return nil
}

// clean removes the cgroups of a node that does not run.
func clean(path string) error {
	spec, err := readSpec(path)
	if err != nil {
		return err
	}
	return spec.cgroups().remove(cgroupPatience)
}

// Spec is what NODE.json says. All paths are absolute.
type Spec struct {
	// Name of the node.
	Name string `json:"name"`
	// Keep is a directory that must look the same inside and outside, wherever
	// it is: the testbed's, with configuration, logs and shared volumes.
	Keep string `json:"keep"`
	// Cgroup is the node's group, relative to the root of every hierarchy.
	Cgroup string `json:"cgroup"`
	// Control is the path of the command socket.
	Control string `json:"control"`
	// Binds give the node directories of its own at standard places.
	Binds []Bind `json:"binds"`
	// Processes are started in this order.
	Processes []Process `json:"processes"`
}

// Bind puts the directory From in the place of the directory To.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Process is one program of the node.
type Process struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	// Log takes what it prints.
	Log string `json:"log"`
	// Socket, where given, is waited for before the next process starts.
	Socket string `json:"socket,omitempty"`
	// Once is set for a program that has to succeed before the next one starts;
	// all others are started again when they end.
	Once bool `json:"once,omitempty"`
}

func (s *Spec) cgroups() cgroups {
	return cgroups{root: "/sys/fs/cgroup", path: s.Cgroup}
}

func readSpec(path string) (*Spec, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	spec := &Spec{}
	if err := json.Unmarshal(text, spec); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if spec.Name == "" || spec.Keep == "" || spec.Cgroup == "" || spec.Control == "" || len(spec.Processes) == 0 {
		return nil, fmt.Errorf("%s: name, keep, cgroup, control and processes are needed", path)
	}
	return spec, nil
}
