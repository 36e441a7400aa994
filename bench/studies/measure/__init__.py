"""What the studies measure: for each study a file of the same name. Only these files import torch."""
