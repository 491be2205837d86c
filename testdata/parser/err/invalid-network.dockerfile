FROM a
RUN --network=bridge x
RUN --network=$N x
RUN --network=hots x
