# SPDX-License-Identifier: Apache-2.0
"""Tests of disks in Azure, against Azurite behind a front that answers honestly what Azurite does not."""
