// Package node is the kubelet of a testbed's real nodes: upstream's kubelet on a
// machine that is described, not found.
//
// A machine with 2 cores cannot be a DGX, and several nodes on it would each
// claim all of it. So the kubelet gets another answer to one question, "what is
// this machine?": cores, memory, NUMA nodes and identity are as described, and
// with them capacity, allocatable, admission and the topology manager. All else
// is what the machine really has, and all nodes share it. The CPU manager's static
// policy, which gives away single cores, has too few of them to work.
package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	cadvisorapi "github.com/google/cadvisor/lib/model"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
)

// Machine is what the kubelet is told about the hardware.
type Machine struct {
	// CPUs is the number of logical CPUs, two of them a core.
	CPUs int
	// MemoryBytes is the memory of the machine.
	MemoryBytes uint64
	// NUMANodes is the number of NUMA nodes; CPUs and memory are divided evenly.
	NUMANodes int
	// Name gives the machine its identity (machine id and system UUID).
	Name string
}

// SLIT distances, as firmware gives them for two sockets.
const (
	distanceLocal  = 10
	distanceRemote = 21
	threadsPerCore = 2
)

// Validate says what is wrong with the description, if anything.
func (m Machine) Validate() error {
	switch {
	case m.NUMANodes < 1:
		return fmt.Errorf("%d NUMA nodes: at least one is needed", m.NUMANodes)
	case m.CPUs < m.NUMANodes || m.CPUs%(m.NUMANodes*threadsPerCore) != 0:
		return fmt.Errorf("%d CPUs are not a multiple of %d NUMA nodes x %d threads", m.CPUs, m.NUMANodes, threadsPerCore)
	case m.MemoryBytes == 0:
		return fmt.Errorf("a machine without memory")
	case m.Name == "":
		return fmt.Errorf("a machine without a name")
	}
	return nil
}

// describe returns what was found with the description in its place.
func (m Machine) describe(found cadvisorapi.MachineInfo) *cadvisorapi.MachineInfo {
	found.NumCores = m.CPUs
	found.NumPhysicalCores = m.CPUs / threadsPerCore
	found.NumSockets = m.NUMANodes
	found.MemoryCapacity = m.MemoryBytes
	found.SwapCapacity = 0
	found.HugePages = nil
	found.Topology = m.topology(found.Topology)
	sum := sha256.Sum256([]byte(m.Name))
	found.MachineID = hex.EncodeToString(sum[:16])
	found.SystemUUID = fmt.Sprintf("%x-%x-%x-%x-%x", sum[16:20], sum[20:22], sum[22:24], sum[24:26], sum[26:32])
	return &found
}

// topology deals the cores that were found out to the NUMA nodes, in runs of
// equal length. It has to name real CPUs, because the kubelet confines pods to
// them; the described ones beyond are a number. A node may stay without cores:
// devices and memory are on it all the same.
func (m Machine) topology(found []cadvisorapi.Node) []cadvisorapi.Node {
	var cores []cadvisorapi.Core
	for _, node := range found {
		cores = append(cores, node.Cores...)
	}
	nodes := make([]cadvisorapi.Node, m.NUMANodes)
	for id := range nodes {
		node := &nodes[id]
		node.Id = id
		node.Memory = m.MemoryBytes / uint64(m.NUMANodes)
		for other := range nodes {
			distance := uint64(distanceRemote)
			if other == id {
				distance = distanceLocal
			}
			node.Distances = append(node.Distances, distance)
		}
		for _, core := range cores[id*len(cores)/m.NUMANodes : (id+1)*len(cores)/m.NUMANodes] {
			core.SocketID = id
			node.Cores = append(node.Cores, core)
		}
	}
	return nodes
}

// described answers for the machine; everything else is the real cAdvisor's.
type described struct {
	cadvisor.Interface
	machine Machine
}

func (d described) MachineInfo(logger klog.Logger) (*cadvisorapi.MachineInfo, error) {
	found, err := d.Interface.MachineInfo(logger)
	if err != nil {
		return nil, err
	}
	return d.machine.describe(*found), nil
}
