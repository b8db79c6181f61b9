# SPDX-License-Identifier: Apache-2.0
"""Page blobs over TLS and on Azurite, beside their peers, in one run. Prints tables and writes them as JSON.

    benchmarks/page_blob.py [--size 2GiB] [--work DIR] [--rounds 3] [--json FILE] [reads] [azurite] [fragments]

reads       a page blob behind a TLS server that is no bottleneck: `PageBlobSource` beside the stock SDK's `download_blob`; then a
            whole backup of it beside one of the same image as a local file. CPU seconds of the reading process alone.
azurite     a page blob on Azurite: backup to a repository on Azurite and restore to a page blob, beside azcopy down and up.
fragments   a page blob of 1 TiB of which 200,000 ranges hold data, and its incremental of 20,000: memory, requests, seconds.

The image is ext4, made of the files of /usr (mkfs.ext4 -d), as in `disk_path.py`. Figures are medians of interleaved rounds.
"""
