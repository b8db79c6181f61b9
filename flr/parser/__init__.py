# SPDX-License-Identifier: Apache-2.0
"""The process in which everything that a guest wrote is understood, and its parent's side.

The parent hands it bytes of disks over a socket and takes back answers, of which it believes nothing but their form. The process
has no network, no files, no children; when it dies, another one takes its place and the session goes on.
"""
