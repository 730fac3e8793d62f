from ems.engine.install import print_line
from tests.engine import oldest

oldest.ensure(print_line)
