"""Puts the output of docs/tour.sh into the README: readme-tour.py TOUR README"""

import re
import sys

tour, readme = sys.argv[1:]
body = []
for line in open(tour, encoding="utf-8").read().strip().split("\n"):
    if line.startswith("# "):
        body += ["", line[2:], ""]
    else:
        body.append(("    " + line).rstrip())
text = re.sub(r"\n{3,}", "\n\n", "\n".join(body)).strip("\n")
page = open(readme, encoding="utf-8").read()
page, n = re.subn(r"(<!-- tour: make tour writes what follows -->\n).*?(?=\n## )", lambda m: m[1] + "\n" + text + "\n", page, flags=re.S)
if n != 1:
    sys.exit(f"{readme} has no place for the tour")
open(readme, "w", encoding="utf-8").write(page)
