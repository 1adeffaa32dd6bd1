"""Teaching kernels: one thread an element first, then the gradient kernel in six steps.

They are for reading, for the simulator and for the machine code that comes out; the library trains with the kernels
one folder up, which do what the last step does, and more. All compute on flat row-major buffers.

``delta.py``          ``d = (d_next W^T) * a (1 - a)``, one thread an element
``naive.py``          ``gW = a^T d``, step 1: the accumulators in global memory, a thread for each row of gW
``coalesced.py``      step 2: a thread for each weight, its sum in a register, neighbours side by side in memory
``shared.py``         step 3: a block reads what its 256 threads share once, into shared memory
``register_tile.py``  step 4: 4 x 4 weights a thread: 8 loads from shared memory for 16 multiply-adds
``double_buffer.py``  step 5: 128-bit loads; the next slab is on its way while this one is multiplied
``pipeline.py``       the loop of this step and the next
``fused.py``          step 6: the update in the same kernel; the gradient never reaches memory
``launch.py``         the steps by name, and how each is started
``stepping.py``       what each thread does in the simulator, line by line
"""
