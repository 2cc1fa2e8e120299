# Prints the targets of a Makefile in groups: "##@ Group" opens one, "target: ## text" is a line of it.
BEGIN { print "make TARGET" }
/^##@ / { printf "\n%s\n", substr($0, 5) }
/^[a-z0-9_-]+:.*## / {
    name = $0; sub(/:.*/, "", name)
    text = $0; sub(/^[^#]*## /, "", text)
    if (name != "help") printf "  %-10s %s\n", name, text
}
