"""A fault corpus made by real mechanisms, and the scores of ``jinmaek diagnose`` and its rivals on it.

python -m bench.diagnosis make --out build/faults
python -m bench.diagnosis score --corpus build/faults --logs ../shared/data/logs --rivals
"""
