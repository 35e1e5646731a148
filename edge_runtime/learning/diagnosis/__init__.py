"""The diagnosis: classifiers of the kind of fault.

Clean rows come in, the manifest's section `diagnosis` goes out.
"""
