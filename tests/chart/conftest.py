import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests
sys.path.insert(0, str(Path(__file__).parents[2] / "helm"))  # what makes the chart's documents
