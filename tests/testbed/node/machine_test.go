package node

import (
	"testing"

	cadvisorapi "github.com/google/cadvisor/lib/model"
)

var dgx = Machine{CPUs: 224, MemoryBytes: 2 << 40, NUMANodes: 2, Name: "dgx-0"}

// found is a machine with this many single-threaded cores on one NUMA node.
func found(cores int) cadvisorapi.MachineInfo {
	info := cadvisorapi.MachineInfo{NumCores: cores, MemoryCapacity: 1, SwapCapacity: 5, Topology: make([]cadvisorapi.Node, 1)}
	for id := range cores {
		info.Topology[0].Cores = append(info.Topology[0].Cores, cadvisorapi.Core{Id: id, Threads: []int{id}})
	}
	return info
}

func TestCapacityIsAsDescribed(t *testing.T) {
	info := dgx.describe(found(2))
	if info.NumCores != dgx.CPUs || info.MemoryCapacity != dgx.MemoryBytes || info.SwapCapacity != 0 {
		t.Errorf("%+v", info)
	}
}

func TestEveryRealCoreIsOnOneNUMANodeAndNoOtherIs(t *testing.T) {
	for _, row := range []struct{ cores, nodes, most int }{{1, 2, 1}, {2, 2, 1}, {3, 2, 2}, {16, 2, 8}, {16, 1, 16}} {
		machine := dgx
		machine.NUMANodes = row.nodes
		seen, memory := map[int]bool{}, uint64(0)
		for _, node := range machine.describe(found(row.cores)).Topology {
			memory += node.Memory
			if len(node.Distances) != row.nodes || node.Distances[node.Id] != distanceLocal || len(node.Cores) > row.most {
				t.Errorf("%+v: %+v", row, node)
			}
			for _, core := range node.Cores {
				if seen[core.Id] || core.SocketID != node.Id || core.Threads[0] >= row.cores {
					t.Errorf("%+v: core %+v", row, core)
				}
				seen[core.Id] = true
			}
		}
		if len(seen) != row.cores || memory != machine.MemoryBytes {
			t.Errorf("%+v: %d cores, %d bytes", row, len(seen), memory)
		}
	}
}

func TestMachinesDifferByName(t *testing.T) {
	other := dgx
	other.Name = "dgx-1"
	a, b := dgx.describe(cadvisorapi.MachineInfo{}), other.describe(cadvisorapi.MachineInfo{})
	if a.MachineID == b.MachineID || a.SystemUUID == b.SystemUUID || len(a.MachineID) != 32 || len(a.SystemUUID) != 36 {
		t.Errorf("%s %s, %s %s", a.MachineID, a.SystemUUID, b.MachineID, b.SystemUUID)
	}
}

func TestImpossibleMachinesAreRefused(t *testing.T) {
	if err := dgx.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Machine){
		"no CPUs": func(m *Machine) { m.CPUs = 0 }, "an odd CPU": func(m *Machine) { m.CPUs = 225 },
		"no memory": func(m *Machine) { m.MemoryBytes = 0 }, "no NUMA node": func(m *Machine) { m.NUMANodes = 0 },
		"no name": func(m *Machine) { m.Name = "" }, "CPUs that do not divide": func(m *Machine) { m.CPUs = 222 },
	} {
		bad := dgx
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
