"""Names of the files in which a run folder keeps results, beside what training writes."""

EVALUATION_FILE, COMPARISON_FILE = "evaluation.json", "compare.json"
