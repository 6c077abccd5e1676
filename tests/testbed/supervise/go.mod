// The process that owns every other process of a testbed.
module flowforge.dev/testbed/supervise

go 1.26.0
