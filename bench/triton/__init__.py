"""What can be known of Triton kernels without a GPU."""
