"""A benchmark suite for transfer learning: the same protocol, the same photographs, three frameworks."""
