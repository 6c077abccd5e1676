package node

import (
	"testing"

	cadvisorapi "github.com/google/cadvisor/lib/model"
)

var dgx = Machine{CPUs: 224, MemoryBytes: 2 << 40, NUMANodes: 2, Name: "dgx-0"}

func TestEveryCPUAndByteIsOnOneNUMANode(t *testing.T) {
	for _, machine := range []Machine{dgx, {CPUs: 144, MemoryBytes: 1 << 40, NUMANodes: 2, Name: "gb"}, {CPUs: 2, MemoryBytes: 1, NUMANodes: 1, Name: "cpu"}} {
		info := machine.describe(cadvisorapi.MachineInfo{NumCores: 2, MemoryCapacity: 1, SwapCapacity: 5})
		threads, memory := map[int]bool{}, uint64(0)
		for _, node := range info.Topology {
			memory += node.Memory
			if len(node.Distances) != machine.NUMANodes || node.Distances[node.Id] != distanceLocal {
				t.Errorf("%+v: distances %v", machine, node.Distances)
			}
			for _, core := range node.Cores {
				for _, thread := range core.Threads {
					threads[thread] = true
				}
			}
		}
		if len(threads) != machine.CPUs || memory != machine.MemoryBytes {
			t.Errorf("%+v: %d threads, %d bytes", machine, len(threads), memory)
		}
		if info.NumCores != machine.CPUs || info.MemoryCapacity != machine.MemoryBytes || info.SwapCapacity != 0 {
			t.Errorf("%+v: %+v", machine, info)
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
