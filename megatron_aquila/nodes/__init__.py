"""One launcher on each node: it meets the others, starts this node's ranks, watches them, and starts them again.

    python -m megatron_aquila.nodes --nodes 1:3 --processes 8 --endpoint gpu01:29400 -- train RECIPE

`aquila train` runs the same launcher for the processes of one machine. The nodes meet through torch's rendezvous, and
a rank finds the variables that torchrun gives it. torchrun's own agent is not used, because (torch 2.13) it ends the
other ranks as soon as one has ended, also while they save what a signal asked them to save; makes 1 of every exit
code; starts ranks again that stopped on purpose; and dies of SIGUSR1.

What becomes of a rank's exit code is `verdict.py`; what the nodes tell each other, `meeting.py`; processes,
`ranks.py`; the loop, `agent.py`.
"""
