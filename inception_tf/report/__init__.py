"""The pages that show runs: one run, report.html, and several side by side, compare.html."""
