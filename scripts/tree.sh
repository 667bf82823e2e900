#!/bin/sh
# Prints a digest of the working tree: what is changed, and what is new.
cd "$(dirname "$0")/.." || exit 1
{
	git diff HEAD
	git ls-files --others --exclude-standard -z | xargs -0 -r sha256sum
} | sha256sum
