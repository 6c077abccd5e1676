module flowforge.dev/testbed/workload

go 1.26.8
