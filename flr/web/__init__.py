# SPDX-License-Identifier: Apache-2.0
"""The recovery browser's web server: TLS, who may come in, requests and answers. What is done is in `flr.recovery`."""
